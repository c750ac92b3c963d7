"""Histories of a service, simulated: real store functions under a clock that is set, workers that die, and a record kept outside.

machine.py    a history, and that every claim is looked at after each step    START HERE
rules/        what may happen next: what hypothesis chooses from
submits.py    what users have queued     jobs_at_work.py   what workers do with jobs
asking.py     what they ask of it        runs.py           what runs say, and leave
keeping.py    what they have kept        exports_at_work.py  what workers do with exports
deletions.py  what they delete           uploads.py        what users upload, and how it is checked
judges.py     candidates, and what people say of them     judged_data.py  data sets of that
hooks.py      webhooks, and what is sent to them
house.py      sweeps for what was lost, policies, removals, orphans, and time that passes
told.py       the record kept outside: plain Python, which no function of the store can read or write
rows.py       what the database and the object store really hold
claims.py     what has to be true of the two after every step
fragile.py    a clock, a database and an object store that a process may die in
world.py      all of it together, and how a step is taken
broken.py     variants of the store that the claims have to catch
"""
