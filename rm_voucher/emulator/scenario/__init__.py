"""Scenarios: what an emulator begins with and what happens to it, in a file.

`read.load_scenario` reads one, `apply.emulator_of` makes an emulator of it.
"""
