"""The page in the browser: its server, what it says about a picture, and the page itself in `page/`."""
