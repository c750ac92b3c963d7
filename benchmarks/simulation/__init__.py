"""Histories of a service, simulated: real store functions under a clock that is set, workers that die, and a record kept outside.

machine.py    the rules: what may happen next                                   START HERE
owners.py     what users ask for          jobs_at_work.py   what workers do with jobs
uploads.py    what they upload            exports_at_work.py  the same with exports and data sets
house.py      sweeps for what was lost, policies, removals, orphans, and time that passes
told.py       the record kept outside: plain Python, which no function of the store can read or write
rows.py       what the database and the object store really hold
claims.py     what has to be true of the two after every step
fragile.py    a clock, a database and an object store that a process may die in
world.py      all of it together, and how a step is taken
broken.py     variants of the store that the claims have to catch
"""
