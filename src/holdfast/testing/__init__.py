"""Instruments with which holdfast is tested, for those who want to test with them: each is a module of its own."""
