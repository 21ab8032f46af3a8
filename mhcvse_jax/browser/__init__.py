"""The page in the browser: its server, what it says of a picture, and the page itself in `page/`."""
