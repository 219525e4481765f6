"""The services behind a team's gapbridge: started natively here, as containers by compose.yaml."""
