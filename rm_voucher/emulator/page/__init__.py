"""The page's files, which a browser gets as they are."""
