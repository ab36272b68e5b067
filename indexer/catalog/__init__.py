"""What is known of every image, source, run, shard and generation; the only home of SQLAlchemy."""
