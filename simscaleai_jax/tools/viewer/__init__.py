"""Episodes in a browser: played at once on the fast engine, then shown step by step as often as one likes."""
