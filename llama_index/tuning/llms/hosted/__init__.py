"""LLMs tuned by a service with the protocol of OpenAI."""
