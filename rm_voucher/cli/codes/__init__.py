"""An operation for each code of a file: looked up, voided, redeemed or reinstated.

`file` reads the codes, `operations` says what is done with one, `journal` keeps what was done
through kills, `run` does it, and `report` says how it ended.
"""
