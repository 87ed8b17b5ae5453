"""What a run is: typed, validated, from TOML. No torch."""
