"""The block log: records (ECS), the writer and the reader. It never decides and never stops who does."""
