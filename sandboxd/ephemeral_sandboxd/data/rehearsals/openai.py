# The first client loads its resources and the transport; nothing is sent.
from openai import OpenAI

client = OpenAI(api_key="none")
repr(client.chat.completions)
client.close()
"example.com".encode("idna")
