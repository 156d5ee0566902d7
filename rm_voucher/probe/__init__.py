"""Finds out, with an account and a batch that may be used up, what RM's server really does.

`Probe` makes the experiments, and its `Report` says for each guess of this library whether it is
true. ``rm-voucher probe`` does the same on the command line.
"""

from rm_voucher.probe.budget import Cost
from rm_voucher.probe.findings import Finding, Verdict
from rm_voucher.probe.options import Options
from rm_voucher.probe.probe import Probe
from rm_voucher.probe.report import Report

__all__ = [
    "Cost",
    "Finding",
    "Options",
    "Probe",
    "Report",
    "Verdict",
]
