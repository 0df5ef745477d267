# Imports only: `import tornado` alone loads nothing.
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.web
import tornado.websocket
