"""Decisions as pure functions: when to save, what it is called, which is better, what is kept.

Nothing here knows a clock, a file, a log, torch or a trainer. Each answer carries its reason.
"""
