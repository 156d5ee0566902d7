"""The thin async service layer: `VoucherClient`, one method an operation."""
