"""The workspace's Markdown files: read, checked, watched, kept as snapshots."""
