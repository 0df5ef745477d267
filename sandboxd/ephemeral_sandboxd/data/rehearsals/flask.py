from flask import Flask, jsonify, render_template_string, request

application = Flask("rehearsal", root_path="/")


@application.route("/", methods=["GET", "POST"])
def index():
    if request.method == "POST":
        return jsonify(request.get_json())
    return render_template_string("{{ a }}", a=1)


client = application.test_client()
client.get("/").get_data()
client.post("/", json={"a": 1}).get_json()
