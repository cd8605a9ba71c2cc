"""The field side: sessions, intake and write-back. Never imports the market side."""
