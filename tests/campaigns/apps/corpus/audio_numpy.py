import gradio as gr


def reversed_sound(sound):
    rate, samples = sound
    return rate, samples[::-1]


gr.Interface(reversed_sound, gr.Audio(), gr.Audio()).launch()
