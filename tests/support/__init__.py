"""Small models and trainers for the tests."""
