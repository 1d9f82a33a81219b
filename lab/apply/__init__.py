"""The only walker of a plan: order, concurrency, batching, journal, resume, cancel."""
