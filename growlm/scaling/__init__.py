"""Loss laws: their forms, fits to the losses of finished runs, predictions with intervals. No torch."""
