"""What root of a jail tries, as functions that need nothing but Python's own library.

They run in three ways: forked from layout as a control, in a jail by that jail's Python, and in a session.
Each is an `Exploit` that gets an `Aim` (both in `frame`), does its worst, and says how it went: returning is
success, with what it got; OSError is a refusal by the kernel; `frame.Refused` one for several reasons.
"""
