"""Device sign-in, pure: the requests to make and what their answers mean."""
