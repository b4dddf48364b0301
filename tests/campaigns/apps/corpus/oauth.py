#: oauth
import gradio as gr
from gradio import oauth
from PIL import Image

oauth.get_token = lambda: "a token"
oauth.whoami = lambda *_: {
    "type": "user",
    "name": "ada",
    "fullname": "Ada",
    "id": "1",
    "email": "ada@example.org",
    "emailVerified": True,
    "isPro": False,
    "avatarUrl": "/none",
    "profile": "/none",
    "orgs": [],
    "auth": {"type": "access_token"},
}


def drawn(profile: gr.OAuthProfile | None):
    return Image.new("RGB", (8, 8), "ivory"), "" if profile is None else profile.name


with gr.Blocks() as demo:
    gr.LoginButton()
    picture, name = gr.Image(format="png"), gr.Textbox()
    gr.Button("Draw").click(drawn, None, [picture, name])

demo.launch()
