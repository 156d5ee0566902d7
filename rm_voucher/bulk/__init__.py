"""Bulk issue: one voucher for each of many recipients."""
