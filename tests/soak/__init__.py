"""Training for an hour under random kills on a small disk that fills and empties: see ``__main__``."""
