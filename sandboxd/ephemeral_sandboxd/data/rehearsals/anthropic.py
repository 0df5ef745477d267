# The first client loads its resources and the transport; nothing is sent.
from anthropic import Anthropic

client = Anthropic(api_key="none")
repr(client.messages)
client.close()
"example.com".encode("idna")
