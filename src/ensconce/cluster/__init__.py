"""The deployment file, and the processes that it describes on one machine."""
