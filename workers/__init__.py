"""The warm worker: a Prefect worker that runs our flows inside its own process."""
