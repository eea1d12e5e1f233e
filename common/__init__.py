"""What receiver and worker both speak: tasks, errors, settings, the queue port and the store port."""
