"""What the user asks for: a checked recipe, its names against the network, the default where nothing is named."""

from secateur.recipe.building import build_constraint as build_constraint
from secateur.recipe.recipe import Recipe as Recipe
from secateur.recipe.sections import Training as Training
