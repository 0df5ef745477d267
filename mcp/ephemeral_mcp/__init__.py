"""The tool an agent calls: `execute_code`, over MCP (streamable HTTP or stdio), answered by sandboxd."""
