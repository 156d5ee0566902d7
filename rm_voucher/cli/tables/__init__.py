"""Tables of people: their spreadsheets read and written, whatever program saved them."""
