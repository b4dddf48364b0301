import io
import wave

import gradio as gr


def silence(seconds):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 800 * int(seconds)))
    return stream.getvalue()


gr.Interface(silence, gr.Number(2), gr.Audio()).launch()
