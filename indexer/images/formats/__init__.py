"""A file for each family of formats: is it mine, open it, check it; and what several of them need."""
