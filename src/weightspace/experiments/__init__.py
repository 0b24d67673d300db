"""The studies behind the documents: each a function that makes the figures of a page."""
