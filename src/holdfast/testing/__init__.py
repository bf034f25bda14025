"""Instruments that find out whether a saver keeps what it promises, of holdfast's or of your own.

``holdfast.testing.kills``: a process is killed, or a call of it fails, at each call that touches a folder.
``holdfast.testing.power``: every state that a power cut may leave of what a saver has written.
``holdfast.testing.damage``: damages of every region of a file, and what a reader makes of them.
"""
