//! The agent in the leased container: keeps tailscaled and redis-server running and does what the operator says.
