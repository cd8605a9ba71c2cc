"""The market side: calls out, returns in. Never imports the field side."""
