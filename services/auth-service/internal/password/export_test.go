package password

// CountSpent returns cfg such that a hasher without workers tells spent of every computation.
func CountSpent(cfg Config, spent func(algorithm string, cost int)) Config {
	cfg.spent = spent
	return cfg
}
