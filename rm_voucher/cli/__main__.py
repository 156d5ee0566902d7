"""``python -m rm_voucher.cli``."""

from rm_voucher.cli import main

main()
