"""What becomes of a campaign after it was issued: who has what, a report, who is to be asked."""
