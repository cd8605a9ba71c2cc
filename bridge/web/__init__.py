"""Listeners for people and machines that watch the bridge."""
