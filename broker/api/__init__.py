"""One module per API family: what each Kafka API answers."""
