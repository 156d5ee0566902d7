"""The pages of people without an account: a voucher as its customer sees it, and a till."""
