"""The block log: records (ECS), the writer, the reader and the summary. It never decides and never stops who does."""
