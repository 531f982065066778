"""The edge to the network: who may come in, how fast, and how much of the house they may take."""
