"""The SQL store, SQLite or PostgreSQL, and the one place that knows SQLAlchemy. May import experiment and domain."""
