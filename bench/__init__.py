"""Measures hooks/s against a bare handler and objects/s against rclone, each pair side by side in one run."""
